<?php

use Troupe\Cache;
use Troupe\Request;

// A page that Troupe keeps for a minute: who asks for the same page meanwhile is answered without PHP.
//
//     curl -i 'localhost:8080/api/page?items=3'      # Cache-Status says where the answer came from

return #[Cache(ttl: 60, groups: ['pages'])] function (Request $request): string {
    $count = min(1_000, max(0, (int) $request->query('items', 20)));
    $rows = '';
    for ($id = 1; $id <= $count; $id++) {
        $rows .= sprintf("<tr><td>%d</td><td>item %04d</td><td>%d</td></tr>\n", $id, $id, $id * 7 % 1_000);
    }
    $made = gmdate('H:i:s');
    return "<!doctype html>\n<title>Items</title>\n<p>Made at $made UTC.</p>\n<table>\n$rows</table>\n";
};
