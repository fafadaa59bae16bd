<?php

use Troupe\Request;

// Server-sent events: each piece that is yielded is sent at once.
//
//     curl -N 'localhost:8080/api/clock?ticks=3'

return function (Request $request): Generator {
    header('Content-Type: text/event-stream');
    header('Cache-Control: no-store');
    $ticks = min(3600, max(1, (int) $request->query('ticks', 10)));
    try {
        for ($i = 1; $i <= $ticks; $i++) {
            yield "id: $i\ndata: " . date(DATE_ATOM) . "\n\n";
            sleep(1);
        }
    } finally {
        // Runs at the end, and when the client has gone away: the place to let go of what the stream used.
        error_log("the clock stopped at tick $i");
    }
};
