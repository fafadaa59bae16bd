<?php

declare(strict_types=1);

use Troupe\Runtime\Reset;
use Troupe\Runtime\Sessions;
use Troupe\Runtime\Shutdown;

/*
 * The session functions that change ini settings behind ini_set()'s back: here they change them through it, so that the
 * changes end with the request.
 */

/**
 * Stands in the place of the built-in function, of which session_commit() is the other name, because PHP itself calls it by
 * name when a process ends: the one moment in which the runtime can see an exit or a fatal error.
 */
function session_write_close(): bool
{
    if (count(debug_backtrace(DEBUG_BACKTRACE_IGNORE_ARGS, 2)) === 1) {
        Shutdown::ending();
    }
    return Sessions::commit();
}

function session_name(?string $name = null): string|false
{
    $before = ini_get('session.name');
    return $name !== null && Reset::set('session.name', $name) === false ? false : $before;
}

function session_cache_limiter(?string $value = null): string|false
{
    $before = ini_get('session.cache_limiter');
    return $value !== null && Reset::set('session.cache_limiter', $value) === false ? false : $before;
}

function session_cache_expire(?int $value = null): int|false
{
    $before = (int) ini_get('session.cache_expire');
    return $value !== null && Reset::set('session.cache_expire', $value) === false ? false : $before;
}

function session_save_path(?string $path = null): string|false
{
    $before = ini_get('session.save_path');
    return $path !== null && Reset::set('session.save_path', $path) === false ? false : $before;
}

function session_set_cookie_params(int|array|null $lifetime_or_options, ?string $path = null, ?string $domain = null, ?bool $secure = null, ?bool $httponly = null): bool
{
    $options = is_array($lifetime_or_options)
        ? array_change_key_case($lifetime_or_options)
        : ['lifetime' => (int) $lifetime_or_options, 'path' => $path, 'domain' => $domain, 'secure' => $secure, 'httponly' => $httponly];
    foreach (['lifetime', 'path', 'domain', 'secure', 'httponly', 'samesite'] as $name) {
        $value = $options[$name] ?? null;
        if ($value !== null && Reset::set("session.cookie_$name", is_bool($value) ? (int) $value : $value) === false) {
            return false;
        }
    }
    return true;
}
