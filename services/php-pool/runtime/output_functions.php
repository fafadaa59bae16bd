<?php

declare(strict_types=1);

use Troupe\Runtime\Call;
use Troupe\Runtime\Output;

/** Sends everything printed so far to the client: the reply is a stream from here on. */
function flush(): void
{
    Output::flush();
}

/** The runtime's own buffer does not count: `while (ob_get_level()) ob_end_clean();` must end. */
function ob_get_level(): int
{
    return count(ob_list_handlers()) - Output::$own;
}

/** Completes the reply for the client; the function goes on, and the process takes no other call until it has ended. */
function fastcgi_finish_request(): bool
{
    if (!Call::isOpen() || Output::$finished) {
        return false;
    }
    Output::collect();
    if (!Output::$streaming) {
        // The length tells the client that the reply is complete, long before the call is.
        header('Content-Length: ' . strlen(Output::$pending));
    }
    Output::finish();
    return true;
}
