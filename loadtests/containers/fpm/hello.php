<?php

/* As functions/hello.php, as a script for php-fpm. */
header('Content-Type: application/json');
echo json_encode(['message' => 'hello', 'name' => $_GET['name'] ?? 'world']);
