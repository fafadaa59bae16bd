<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/**
 * What the loaded code mentions, where knowing it spares work in every call: code that never says chdir() needs no question
 * for the working directory. Each file is read once; the zygote does it for its forks.
 */
final class Code
{
    /** Beyond this many files, counting them costs more than the work it could spare. */
    private const COUNTED = 100;

    /** Code that a process which has survived an exit cannot run. */
    public static bool $fibers = false;

    /** Code that changes what costs a system call to compare, or that cannot be read here. */
    public static bool $surroundings = false;

    /** Code that may make global variables. */
    public static bool $globals = false;

    /** Code that may print while an exception is on its way, or load such code, which is read when it is too late. */
    public static bool $buffers = false;

    /** Code that may load more code. */
    private static bool $loads = false;

    /** @var array<string, true> the files that were read */
    private static array $read = [];

    private static int $count = 0;

    /** To be called after each call of a function, before the flags are asked for. */
    public static function update(): void
    {
        if (self::$loads && !(self::$surroundings && self::$globals) && count(get_included_files()) !== self::$count) {
            self::look();
        }
    }

    /** Reads what was loaded since the last time. */
    public static function look(): void
    {
        $files = get_included_files();
        self::$count = count($files);
        foreach ($files as $file) {
            if (isset(self::$read[$file]) || str_starts_with($file, __DIR__ . '/')) {
                continue;
            }
            self::$read[$file] = true;
            $text = Quiet::call(static fn () => file_get_contents($file));
            if (!is_string($text)) {
                // Written, loaded and removed in one call, as some template engines do: it may say anything.
                self::$fibers = self::$surroundings = self::$globals = self::$buffers = self::$loads = true;
                continue;
            }
            self::$fibers = self::$fibers || preg_match('~\bFiber\b~i', $text) === 1;
            self::$surroundings = self::$surroundings || preg_match('~\b(?:chdir|umask|putenv|eval)\b~i', $text) === 1;
            self::$globals = self::$globals || preg_match('~\b(?:global|GLOBALS|eval)\b~i', $text) === 1;
            self::$buffers = self::$buffers || preg_match('~\b(?:ob_start|set_error_handler|header_register_callback|stream_wrapper_register|__debugInfo)\b~i', $text) === 1;
            self::$loads = self::$loads || preg_match('~\b(?:(?:include|require)(?:_once)?|spl_autoload\w*)\b~i', $text) === 1;
        }
        self::$buffers = self::$buffers || self::$loads;
        if (self::$count > self::COUNTED) {
            self::$surroundings = self::$globals = self::$buffers = true;
        }
    }
}
