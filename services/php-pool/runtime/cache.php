<?php

declare(strict_types=1);

namespace Troupe;

use Troupe\Runtime\Headers;

/**
 * Has a function's answers cached: `return #[Cache(ttl: 60)] function () {...};`. Read once, when the function is loaded.
 *
 * It becomes header lines of each successful answer, unless the function says by Cache-Control itself how that one is cached.
 * What depends on the answer is said inside the function: Cache::keep(), Cache::skip(), Cache::changed().
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
        self::check($groups);
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
            $lines .= 'Cache-Groups: ' . self::list($groups) . "\n";
        }
        $this->lines = $lines;
        $this->varies = $vary === [] ? '' : 'Vary: ' . implode(', ', $vary) . "\n";
    }

    /**
     * Has the answer of this call cached, in the place of what the function's attribute says. The arguments are the attribute's.
     *
     * @param list<string> $groups
     * @param list<string> $vary
     *
     * @throws \ValueError when one of them cannot be
     */
    public static function keep(int $ttl, array $groups = [], array $vary = [], int $staleWhileRevalidate = 0, int $staleIfError = 0): void
    {
        $cache = new self($ttl, $groups, $vary, $staleWhileRevalidate, $staleIfError);
        if (Headers::writable()) {
            Headers::remove('troupe-cache-control');
            Headers::$cache = $cache;
        }
    }

    /** Has the answer of this call not cached by Troupe, whatever the attribute, the headers or the route say. */
    public static function skip(): void
    {
        if (Headers::writable()) {
            Headers::$cache = null;
            Headers::put('troupe-cache-control', "Troupe-Cache-Control: no-store\n", true);
        }
    }

    /**
     * Takes the answers of these groups out of the cache, on this origin, when this call has succeeded: for a POST, PUT, DELETE or
     * PATCH that changed what they were made of. Says nothing in the answer to a GET, which changes nothing (RFC 9875 §3).
     *
     * @throws \ValueError when a group cannot be one
     */
    public static function changed(string ...$groups): void
    {
        self::check($groups);
        if ($groups !== [] && Headers::writable()) {
            Headers::put('cache-group-invalidation', 'Cache-Group-Invalidation: ' . self::list($groups) . "\n", false);
        }
    }

    /** @param array<mixed> $groups */
    private static function check(array $groups): void
    {
        foreach ($groups as $group) {
            if (!is_string($group) || preg_match('~^[\x20-\x7e]{1,256}$~D', $group) !== 1) {
                throw new \ValueError('#[Cache]: a group is a string of 1 to 256 printable ASCII characters');
            }
        }
    }

    /** @param array<string> $groups */
    private static function list(array $groups): string
    {
        return implode(', ', array_map(static fn (string $group): string => '"' . addcslashes($group, '"\\') . '"', $groups));
    }
}
