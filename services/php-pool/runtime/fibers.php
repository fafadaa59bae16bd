<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/** Tells whether loaded code mentions Fibers, which a process that has survived an exit cannot start. */
final class Fibers
{
    /** @var array<string, true> the files that were looked at */
    private static array $seen = [];

    private static bool $mentioned = false;

    /** Looks at what was loaded since the last time. The zygote does it once, so that its forks seldom have anything to read. */
    public static function mentioned(): bool
    {
        if (self::$mentioned) {
            return true;
        }
        foreach (get_included_files() as $file) {
            if (isset(self::$seen[$file]) || str_starts_with($file, __DIR__ . '/')) {
                continue;
            }
            self::$seen[$file] = true;
            if (preg_match('~\bFiber\b~', (string) @file_get_contents($file)) === 1) {
                return self::$mentioned = true;
            }
        }
        return false;
    }
}
