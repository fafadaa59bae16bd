<?php

use Troupe\Request;
use Troupe\Response;

// Says back what it is sent: for trying out clients, and load generators.
//
//     curl localhost:8080/api/test -H 'Content-Type: application/json' -d '{"name": "Ada"}'

return function (Request $request): array|Response {
    try {
        $received = $request->body() === '' ? null : $request->json();
    } catch (JsonException $error) {
        return Response::json(['error' => "this is no JSON: {$error->getMessage()}"], 400);
    }
    return ['status' => 'ok', 'method' => $request->method(), 'received' => $received];
};
