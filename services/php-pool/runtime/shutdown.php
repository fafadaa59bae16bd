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

    /**
     * The C stack of a Fiber that calls run in: as much as the kernel gives a process, which plain calls have. PHP's own 2 MB end
     * it in a recursion through array_map() or usort() of a third of the depth. Memory is only reserved.
     */
    private const STACK = '8M';

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
        if (self::$hook !== null) {
            (self::$hook)(self::fatalError());
        }
    }

    /** @return ?array{type: int, message: string, file: string, line: int} the error that PHP could not go on after */
    private static function fatalError(): ?array
    {
        $error = error_get_last();
        return $error !== null && ($error['type'] & self::FATAL) !== 0 ? $error : null;
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
     * Runs `$step` until it returns false. When it ends by an exit it runs again, and when by a fatal error, too, with the error.
     *
     * @param \Closure(?array): bool $step
     * @param ?array{type: int, message: string, file: string, line: int} $error
     */
    public static function survive(\Closure $step, ?array $error): void
    {
        do {
            $again = true;
            $fiber = new \Fiber(static function () use ($step, $error, &$again): void {
                try {
                    \Fiber::suspend();
                } finally {
                    $again = $step($error);
                }
            });
            $size = ini_alter('fiber.stack_size', self::STACK);
            $fiber->start();
            // Not for Fibers of the function's own, of which there may be thousands.
            ini_alter('fiber.stack_size', (string) $size);
            unset($fiber);
            $error = self::fatalError();
            if ($again && $error !== null) {
                // Fibers do not run any more after a fatal error in one; this is the last step in any case.
                $step($error);
                return;
            }
        } while ($again);
    }
}
