<?php

declare(strict_types=1);

use Troupe\Runtime\Call;
use Troupe\Runtime\Output;
use Troupe\Runtime\Reset;

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

/** Until this call ends: without it the function ends at the first flush that nobody reads. */
function ignore_user_abort(?bool $enable = null): int
{
    $before = (int) ini_get('ignore_user_abort');
    if ($enable !== null) {
        Reset::set('ignore_user_abort', $enable);
    }
    return $before;
}

function connection_aborted(): int
{
    return (int) Output::$gone;
}

function connection_status(): int
{
    return Output::$gone ? CONNECTION_ABORTED : CONNECTION_NORMAL;
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
