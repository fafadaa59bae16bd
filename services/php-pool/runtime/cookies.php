<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/** Cookies, both ways: the Cookie header as PHP reads it, Set-Cookie as PHP writes it. */
final class Cookies
{
    /**
     * @return array<string|int, mixed> what belongs into $_COOKIE: the first of several equal names wins, names are mangled as
     *                                  PHP does ("a.b" is a_b, "a[x]" an array), values are decoded without "+" meaning a space
     */
    public static function parse(string $header): array
    {
        $cookies = [];
        $nested = '';
        foreach (explode(';', $header) as $pair) {
            [$name, $value] = explode('=', $pair, 2) + [1 => ''];
            $name = ltrim($name);
            if ($name === '') {
                continue;
            }
            if (strpbrk($name, '[. ') === false) {
                $cookies[$name] ??= rawurldecode($value);
                continue;
            }
            // parse_str() knows the rules; it would decode the name, which must stay as it is.
            parse_str(urlencode($name) . '=' . urlencode(rawurldecode($value)), $one);
            $mangled = array_key_first($one);
            if ($mangled === null || str_starts_with((string) $mangled, '__Host-') || str_starts_with((string) $mangled, '__Secure-')) {
                continue;
            }
            $cookies[$mangled] ??= $one[$mangled];
            if (is_array($one[$mangled])) {
                $nested .= '&' . urlencode($name) . '=' . urlencode(rawurldecode($value));
            }
        }
        if ($nested !== '') {
            parse_str(substr($nested, 1), $arrays);
            foreach ($arrays as $name => $value) {
                if (is_array($cookies[$name] ?? null)) {
                    $cookies[$name] = $value;
                }
            }
        }
        return $cookies;
    }

    /**
     * The value of one Set-Cookie header, in PHP's form.
     *
     * @param array<string, mixed> $options expires, path, domain, secure, httponly, samesite
     *
     * @throws \ValueError when a part holds a character that cannot stand there
     */
    public static function line(string $name, string $value, array $options, bool $raw = false): string
    {
        $function = $raw ? 'setrawcookie' : 'setcookie';
        if ($name === '') {
            throw new \ValueError($function . '(): Argument #1 ($name) cannot be empty');
        }
        if (strpbrk($name, "=,; \t\r\n\013\014") !== false) {
            throw new \ValueError($function . '(): Argument #1 ($name) cannot contain "=", ",", ";", " ", "\t", "\r", "\n", "\013", or "\014"');
        }
        if ($raw && strpbrk($value, ",; \t\r\n\013\014") !== false) {
            throw new \ValueError($function . '(): Argument #2 ($value) cannot contain ",", ";", " ", "\t", "\r", "\n", "\013", or "\014"');
        }
        $options = array_change_key_case($options) + ['expires' => 0, 'path' => '', 'domain' => '', 'secure' => false, 'httponly' => false, 'samesite' => ''];
        foreach (['path', 'domain', 'samesite'] as $part) {
            if (strpbrk((string) $options[$part], ",; \t\r\n\013\014") !== false) {
                throw new \ValueError("$function(): \"$part\" option cannot contain \",\", \";\", \" \", \"\\t\", \"\\r\", \"\\n\", \"\\013\", or \"\\014\"");
            }
        }
        if ($value === '') {
            // PHP's way to delete a cookie.
            return "$name=deleted; expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0" . self::attributes($options);
        }
        $line = "$name=" . ($raw ? $value : rawurlencode($value));
        $expires = (int) $options['expires'];
        if ($expires !== 0) {
            $line .= '; expires=' . gmdate('D, d M Y H:i:s \G\M\T', $expires) . '; Max-Age=' . max(0, $expires - time());
        }
        return $line . self::attributes($options);
    }

    /** @param array<string, mixed> $options */
    private static function attributes(array $options): string
    {
        return ((string) $options['path'] !== '' ? "; path={$options['path']}" : '')
            . ((string) $options['domain'] !== '' ? "; domain={$options['domain']}" : '')
            . ($options['secure'] ? '; secure' : '')
            . ($options['httponly'] ? '; HttpOnly' : '')
            . ((string) $options['samesite'] !== '' ? "; SameSite={$options['samesite']}" : '');
    }
}
