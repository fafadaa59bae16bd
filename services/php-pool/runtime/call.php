<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/** The call that is running: at most one per process. */
final class Call
{
    public const FORM = 1;
    public const STREAM = 2;
    public const LAST = 4;
    public const DEVELOPMENT = 8;
    public const PLAIN = 16;
    /** Before it starts, a mark goes to standard output, or standard error: see Stdio. */
    public const MARK_STDOUT = 32;
    public const MARK_STDERR = 64;

    public const IDLE = 0;
    /** The function, or the generator it returned, is running. */
    public const RUNNING = 1;
    /** The functions given to register_shutdown_function() are running. */
    public const CLOSING = 2;
    /** The reply is being put together and sent. */
    public const SENDING = 3;
    /** The reply is out, and what the call leaves is taken away. Destructors run, which nobody hears. */
    public const RESETTING = 4;

    public static int $stage = self::IDLE;
    public static int $flags = 0;
    /** When it started, as hrtime(true) tells it. */
    public static int $started = 0;
    /** The index of the running function. */
    public static int $function = 0;

    /** Whether there is a reply to add to. */
    public static function isOpen(): bool
    {
        return self::$stage !== self::IDLE && self::$stage !== self::RESETTING;
    }

    public static function micros(): int
    {
        return min(intdiv(hrtime(true) - self::$started, 1000), 0xFFFF_FFFF);
    }
}
