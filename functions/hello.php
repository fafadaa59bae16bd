<?php

use Troupe\Request;

return function (Request $request): array {
    return ['message' => 'hello', 'name' => $request->query('name', 'world')];
};
