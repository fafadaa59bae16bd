<?php

declare(strict_types=1);

namespace Troupe;

/**
 * Has a function's answers cached: `return #[Cache(ttl: 60)] function () {...};`. Read once, when the function is loaded.
 *
 * It becomes header lines of each successful answer, unless the function says by Cache-Control itself how that one is cached.
 */
#[\Attribute(\Attribute::TARGET_FUNCTION | \Attribute::TARGET_METHOD)]
final class Cache
{
    /** The header lines, without Vary. */
    public readonly string $lines;

    /** The Vary line, or nothing. */
    public readonly string $varies;

    /**
     * @param int $ttl seconds for which an answer is fresh
     * @param list<string> $groups what `troupe purge --group` finds it by
     * @param list<string> $vary the request headers that answers depend on, beside the URL
     * @param int $staleWhileRevalidate seconds past the ttl for which it is given while a new one is made
     * @param int $staleIfError seconds past the ttl for which it is given when a new one cannot be made
     *
     * @throws \ValueError when one of them cannot be
     */
    public function __construct(int $ttl, array $groups = [], array $vary = [], int $staleWhileRevalidate = 0, int $staleIfError = 0)
    {
        if (min($ttl, $staleWhileRevalidate, $staleIfError) < 0) {
            throw new \ValueError('#[Cache]: times are seconds, 0 or more');
        }
        foreach ($groups as $group) {
            if (!is_string($group) || preg_match('~^[\x20-\x7e]{1,256}$~D', $group) !== 1) {
                throw new \ValueError('#[Cache]: a group is a string of 1 to 256 printable ASCII characters');
            }
        }
        foreach ($vary as $name) {
            if (!is_string($name) || preg_match('~^[!#$%&\'*+.^_`|\~0-9a-z-]+$~Di', $name) !== 1 || $name === '*') {
                throw new \ValueError('#[Cache]: vary names request headers, such as Accept-Language');
            }
        }
        $control = "max-age=$ttl";
        if ($staleWhileRevalidate > 0) {
            $control .= ", stale-while-revalidate=$staleWhileRevalidate";
        }
        if ($staleIfError > 0) {
            $control .= ", stale-if-error=$staleIfError";
        }
        $lines = "Troupe-Cache-Control: $control\n";
        if ($groups !== []) {
            $lines .= 'Cache-Groups: ' . implode(', ', array_map(static fn (string $group): string => '"' . addcslashes($group, '"\\') . '"', $groups)) . "\n";
        }
        $this->lines = $lines;
        $this->varies = $vary === [] ? '' : 'Vary: ' . implode(', ', $vary) . "\n";
    }
}
