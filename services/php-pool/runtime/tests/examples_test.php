<?php

declare(strict_types=1);

/* The functions a user copies from. */

$files = static function (string $folder, string $prefix = '') use (&$files): array {
    $found = [];
    foreach (array_diff(scandir($folder), ['.', '..']) as $entry) {
        $found += is_dir("$folder/$entry") ? $files("$folder/$entry", "$prefix$entry/") : [$prefix . $entry => file_get_contents("$folder/$entry")];
    }
    return $found;
};

return [
    'every example answers' => static function () use ($files): void {
        $pool = new Pool($files(dirname(__DIR__, 4) . '/functions'));
        same([], $pool->ready['errors']);
        same(['clock', 'data', 'hello', 'notes', 'page', 'shop', 'slow', 'test', 'upload'], array_column($pool->ready['functions'], 'name'));
        $p = $pool->process();
        same('{"message":"hello","name":"world"}', $p->call('hello')['body']);
        same('{"lines":[{"article":"apple","amount":3,"price":"1.20"}],"total":"1.20"}', $p->call('shop', ['QUERY_STRING' => 'apple=3&stone=1'])['body']);
        same('{"slept":1}', $p->call('slow', ['QUERY_STRING' => 'ms=1'])['body']);
        $r = $p->call('clock', ['QUERY_STRING' => 'ticks=1']);
        same(['stream', 1], [$r['kind'], preg_match("~^id: 1\ndata: \S+\n\n$~", $r['body'])]);
        $note = static fn (string $body, string $method = 'POST', string $type = 'application/json'): array => $p->call('notes', ['REQUEST_METHOD' => $method, 'CONTENT_TYPE' => $type], $body);
        same([405, 415, 400, 422, 422], [$note('', 'GET')['status'], $note('x', 'POST', 'text/plain')['status'], $note('{')['status'], $note('{"tags": [1]}')['status'], $note('"text"')['status']]);
        $r = $note('{"title": " Milk ", "tags": ["shop"]}');
        same([201, 'Milk'], [$r['status'], json_decode($r['body'], true)['title']]);
        contains('<form', $p->call('upload')['body']);
        file_put_contents("$pool->run/u", 'hello');
        contains('a.txt: 5 bytes, SHA-256 2cf24dba', $p->call('upload', ['REQUEST_METHOD' => 'POST', 'CONTENT_TYPE' => 'multipart/form-data; boundary=x'], '', ['f' => [['file', 'a.txt', 'text/plain', "$pool->run/u", 0, 5]]])['body']);
        same(422, $p->call('upload', ['REQUEST_METHOD' => 'POST', 'CONTENT_TYPE' => 'multipart/form-data; boundary=x'], '', ['f' => []])['status']);
        same('', $p->errors() === '' ? '' : preg_replace('~^.*the clock stopped.*$\n?~m', '', $p->errors()));
        $pool->close();
    },
];
