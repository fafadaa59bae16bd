<?php

declare(strict_types=1);

/* The same few values as functions/hello.php, as a script for php-fpm. */
header('Content-Type: application/json');
header('Cache-Control: no-store');
echo json_encode([
    'message' => 'hello',
    'name' => $_GET['name'] ?? 'world',
    'service' => 'troupe comparison',
    'items' => [1, 2, 3, 4, 5],
    'ok' => true,
]);
