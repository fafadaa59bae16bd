<?php

use Troupe\Request;

// Takes as long as it is told, at most ten seconds: for trying out timeouts and queues.
//
//     curl 'localhost:8080/api/slow?ms=250'

return function (Request $request): array {
    $ms = min(10_000, max(0, (int) $request->query('ms', 1000)));
    usleep($ms * 1000);
    return ['slept' => $ms];
};
