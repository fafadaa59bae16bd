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

    /** @var array<string, true> the files that were read */
    private static array $read = [];

    private static int $count = 0;

    /** Whether a call may have changed the working directory, the umask or the environment. */
    public static function mayHaveMoved(): bool
    {
        if (!self::$surroundings && count(get_included_files()) !== self::$count) {
            self::look();
        }
        return self::$surroundings;
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
            $text = (string) @file_get_contents($file);
            self::$fibers = self::$fibers || preg_match('~\bFiber\b~i', $text) === 1;
            self::$surroundings = self::$surroundings || preg_match('~\b(?:chdir|umask|putenv|eval)\b~i', $text) === 1;
        }
        self::$surroundings = self::$surroundings || self::$count > self::COUNTED;
    }
}
