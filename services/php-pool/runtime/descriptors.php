<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/**
 * The open descriptors of this process. What code leaves open at boot would be shared by all forks: two processes reading
 * replies from one database connection get each other's.
 */
final class Descriptors
{
    /** @return array<int, string> what each descriptor is open on; empty where /proc does not tell */
    public static function open(): array
    {
        return Quiet::call(static function (): array {
            $open = [];
            foreach (scandir('/proc/self/fd') ?: [] as $number) {
                // The one of scandir() itself is gone by now.
                $target = $number[0] === '.' ? false : readlink("/proc/self/fd/$number");
                if ($target !== false) {
                    $open[(int) $number] = $target;
                }
            }
            return $open;
        });
    }

    /**
     * @param array<int, string> $before
     *
     * @return ?string what was opened since and is still open
     */
    public static function leftOpen(array $before): ?string
    {
        $left = [];
        foreach (self::open() as $number => $target) {
            if (($before[$number] ?? null) !== $target) {
                $left[] = "descriptor $number on $target";
            }
        }
        return $left === [] ? null : implode(', ', $left);
    }
}
