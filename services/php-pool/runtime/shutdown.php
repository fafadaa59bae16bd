<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/**
 * What happens when a function ends otherwise than by returning: exit, a fatal error, the time limit.
 *
 * An exit unwinds the whole script, and PHP then calls the shutdown functions: there the loop goes on. A second exit would end
 * the process, so from then on calls run in the `finally` block of a Fiber that is being destroyed: PHP lets an exit end such a
 * Fiber and nothing else. Code running there cannot start Fibers of its own, hence not from the beginning: a process runs
 * plainly until its first exit, and where code mentions Fibers it is replaced instead.
 */
final class Shutdown
{
    private const FATAL = E_ERROR | E_PARSE | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR | E_RECOVERABLE_ERROR;

    /** @var list<array{callable, array<mixed>}> given to register_shutdown_function() during this call */
    public static array $functions = [];

    /** Called when the process ends, with the fatal error that ended it or null. */
    public static ?\Closure $hook = null;

    /** Makes PHP call ending() when the script ends, however it ends. */
    public static function arm(): void
    {
        if (function_exists('session_register_shutdown')) {
            session_register_shutdown();
        }
    }

    public static function ending(): void
    {
        if (self::$hook === null) {
            return;
        }
        $error = error_get_last();
        (self::$hook)($error !== null && ($error['type'] & self::FATAL) !== 0 ? $error : null);
    }

    /** Runs this call's shutdown functions; one of them may register more. An exit in one skips the rest. */
    public static function run(): void
    {
        while (self::$functions !== []) {
            [$function, $arguments] = array_shift(self::$functions);
            $function(...$arguments);
        }
    }

    /**
     * Runs `$step` again and again, surviving exits, until it returns false.
     *
     * @param \Closure(): bool $step
     */
    public static function survive(\Closure $step): void
    {
        do {
            $again = true;
            $fiber = new \Fiber(static function () use ($step, &$again): void {
                try {
                    \Fiber::suspend();
                } finally {
                    $again = $step();
                }
            });
            $fiber->start();
            unset($fiber);
        } while ($again);
    }
}
