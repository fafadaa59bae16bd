<?php
// Says what arrived, in numbers that a test can compare.
return fn (): array => [
    'method' => $_SERVER['REQUEST_METHOD'],
    'uri' => $_SERVER['REQUEST_URI'],
    'get' => $_GET,
    'post' => $_POST,
    'cookie' => $_COOKIE,
    'files' => array_map(fn (array $file): array => [$file['name'], $file['size'], $file['error'], md5_file($file['tmp_name'])], $_FILES),
    'length' => strlen(file_get_contents('php://input')),
    'md5' => md5(file_get_contents('php://input')),
    'id' => $_SERVER['HTTP_X_REQUEST_ID'] ?? null,
    'trace' => $_SERVER['HTTP_TRACEPARENT'] ?? null,
    'pid' => getmypid(),
];
