<?php

declare(strict_types=1);

use Troupe\Runtime\Callback;
use Troupe\Runtime\Shutdown;

/** The end of the call, not of the process. */
function register_shutdown_function(mixed $callback, mixed ...$args): void
{
    Shutdown::$functions[] = [Callback::take(__FUNCTION__, $callback), $args];
}
