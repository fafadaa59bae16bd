<?php
return function (): Generator {
    $pieces = (int) ($_GET['pieces'] ?? 3);
    $bytes = (int) ($_GET['bytes'] ?? 0);
    header('Content-Type: text/event-stream');
    for ($i = 0; $i < $pieces; $i++) {
        yield $bytes > 0 ? str_repeat(chr(97 + $i % 26), $bytes) : "data: $i\n\n";
        usleep(1000 * (int) ($_GET['ms'] ?? 0));
    }
};
