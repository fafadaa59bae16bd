<?php

use Troupe\Request;
use Troupe\Response;

// A JSON API: validates a note and answers with the status that fits. Where notes are kept is up to you.
//
//     curl -i localhost:8080/api/notes -H 'Content-Type: application/json' -d '{"title": "Milk", "tags": ["shop"]}'

return function (Request $request): Response {
    if ($request->method() !== 'POST') {
        return Response::json(['error' => 'send a note with POST'], 405)->withHeader('Allow', 'POST');
    }
    if (!str_starts_with($request->header('Content-Type', ''), 'application/json')) {
        return Response::json(['error' => 'a note is application/json'], 415);
    }
    try {
        $note = $request->json();
    } catch (JsonException $error) {
        return Response::json(['error' => "this is no JSON: {$error->getMessage()}"], 400);
    }

    $problems = [];
    $limit = 100;
    $title = is_array($note) ? $note['title'] ?? null : null;
    if (!is_string($title) || trim($title) === '') {
        $problems['title'] = 'a note needs a title';
    } elseif (strlen($title) > $limit) {
        $problems['title'] = "a title has at most $limit bytes";
    }
    $tags = is_array($note) ? $note['tags'] ?? [] : [];
    if (!is_array($tags) || array_filter($tags, 'is_string') !== $tags) {
        $problems['tags'] = 'tags are a list of strings';
    }
    if ($problems !== []) {
        return Response::json(['error' => 'the note is not valid', 'problems' => $problems], 422);
    }

    $id = bin2hex(random_bytes(8));
    return Response::json(['id' => $id, 'title' => trim($title), 'tags' => array_values($tags)], 201)
        ->withHeader('Location', "{$request->path()}?id=$id");
};
