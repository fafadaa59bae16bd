<?php

declare(strict_types=1);

use Troupe\Runtime\Shutdown;

/** The end of the call, not of the process. */
function register_shutdown_function(callable $callback, mixed ...$args): void
{
    Shutdown::$functions[] = [$callback, $args];
}
