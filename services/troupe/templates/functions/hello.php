<?php

use Troupe\Request;

// Served at /api/hello: a function is a file that returns a callable. What it returns becomes the response, an array as JSON.
return function (Request $request): array {
    return ['message' => 'hello', 'name' => $request->query('name', 'world')];
};
