<?php
// Server-sent events without an end; each says when it was written, by the clock that all processes of a machine share.
return function (): Generator {
    header('Content-Type: text/event-stream');
    while (true) {
        yield 'data: ' . hrtime(true) . "\n\n";
        usleep(10_000);
    }
};
