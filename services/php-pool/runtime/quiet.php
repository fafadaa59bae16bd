<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/**
 * Work of the runtime whose warnings are nobody's business. An error handler that the code has installed is called in spite of
 * "@", and many of them throw.
 */
final class Quiet
{
    /**
     * @template T
     *
     * @param \Closure(): T $work
     *
     * @return T
     */
    public static function call(\Closure $work): mixed
    {
        set_error_handler(static fn (): bool => true);
        try {
            return $work();
        } finally {
            restore_error_handler();
        }
    }
}
