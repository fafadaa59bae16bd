<?php

declare(strict_types=1);

use Troupe\Request;

/** The same few values as fpm/hello.php, as a function. */
return function (Request $request): array {
    return [
        'message' => 'hello',
        'name' => $request->query('name', 'world'),
        'service' => 'troupe comparison',
        'items' => [1, 2, 3, 4, 5],
        'ok' => true,
    ];
};
