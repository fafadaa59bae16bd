<?php

use Troupe\Request;

// A list in JSON, as long as it is asked for: 100 entries unless the query says otherwise, 1,000 at most.
//
//     curl 'localhost:8080/api/data?items=3'

return function (Request $request): array {
    $count = min(1_000, max(0, (int) $request->query('items', 100)));
    $items = [];
    for ($id = 1; $id <= $count; $id++) {
        $items[] = ['id' => $id, 'name' => sprintf('item %04d', $id), 'price' => $id * 7 % 1_000, 'stock' => $id % 13];
    }
    return ['count' => $count, 'items' => $items];
};
