<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/** Callbacks given to the redeclared functions. PHP's own may be private: what counts is who calls. */
final class Callback
{
    /** Functions that call others for somebody: the code before them is the one that counts. */
    private const BETWEEN = ['call_user_func', 'call_user_func_array'];

    /** @throws \TypeError when the code that has called `$function` could not call it */
    public static function take(string $function, mixed $callback): callable
    {
        if ($callback instanceof \Closure || (is_string($callback) && function_exists($callback))) {
            return $callback;
        }
        // The first two frames are this call and the one of the redeclared function.
        $frames = array_slice(debug_backtrace(DEBUG_BACKTRACE_PROVIDE_OBJECT | DEBUG_BACKTRACE_IGNORE_ARGS, 4), 2);
        $caller = in_array($frames[0]['function'] ?? '', self::BETWEEN, true) ? $frames[1] ?? [] : $frames[0] ?? [];
        $make = fn (): \Closure => \Closure::fromCallable($callback);
        try {
            return isset($caller['class']) ? \Closure::bind($make, $caller['object'] ?? null, $caller['class'])() : $make();
        } catch (\TypeError $error) {
            $why = preg_replace('~^.*?: ~', '', $error->getMessage());
            throw new \TypeError("$function(): Argument #1 (\$callback) must be a valid callback, $why");
        }
    }
}
