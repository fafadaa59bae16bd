<?php

declare(strict_types=1);

use Troupe\Runtime\Cookies;
use Troupe\Runtime\Headers;
use Troupe\Runtime\Sessions;

function setcookie(?string $name, ?string $value = '', int|array|null $expires_or_options = 0, ?string $path = '', ?string $domain = '', ?bool $secure = false, ?bool $httponly = false): bool
{
    return troupe_add_cookie((string) $name, (string) $value, $expires_or_options ?? 0, $path, $domain, $secure, $httponly, raw: false);
}

function setrawcookie(?string $name, ?string $value = '', int|array|null $expires_or_options = 0, ?string $path = '', ?string $domain = '', ?bool $secure = false, ?bool $httponly = false): bool
{
    return troupe_add_cookie((string) $name, (string) $value, $expires_or_options ?? 0, $path, $domain, $secure, $httponly, raw: true);
}

/** @internal */
function troupe_add_cookie(string $name, string $value, int|array $options, ?string $path, ?string $domain, ?bool $secure, ?bool $httponly, bool $raw): bool
{
    if (!Headers::writable()) {
        return false;
    }
    if (is_int($options)) {
        $options = ['expires' => $options, 'path' => $path, 'domain' => $domain, 'secure' => $secure, 'httponly' => $httponly];
    }
    Sessions::addHeaders();
    Headers::put('set-cookie', 'Set-Cookie: ' . Cookies::line($name, $value, $options, $raw) . "\n", false);
    return true;
}
