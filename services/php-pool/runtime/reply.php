<?php

declare(strict_types=1);

namespace Troupe\Runtime;

use Troupe\Response;

/** From what a function returned to a body; sets the headers that follow from it. */
final class Reply
{
    public const JSON = JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_PRESERVE_ZERO_FRACTION;

    /**
     * @return string|iterable<mixed>|null the body; an iterable is to be streamed; null when what was printed is the body
     *
     * @throws \JsonException|\TypeError when the value cannot be a body
     */
    public static function body(mixed $value): string|iterable|null
    {
        if (is_array($value)) {
            return self::json($value);
        }
        if ($value === null || is_string($value) || $value instanceof \Generator) {
            return $value;
        }
        if ($value instanceof Response) {
            return self::response($value);
        }
        if ($value instanceof \Closure || is_resource($value)) {
            throw new \TypeError('a function cannot return a ' . get_debug_type($value) . ': return an array, an object, a string, a Response, a generator or nothing');
        }
        return self::json($value);
    }

    /** One piece of a stream. */
    public static function piece(mixed $piece): string
    {
        if (is_string($piece)) {
            return $piece;
        }
        if ($piece === null) {
            return '';
        }
        if ($piece instanceof \Stringable) {
            return (string) $piece;
        }
        // One line each: JSON Lines.
        return json_encode($piece, self::JSON) . "\n";
    }

    private static function json(mixed $value): string
    {
        $body = json_encode($value, self::JSON);
        Headers::$lines['content-type'] ??= "Content-Type: application/json\n";
        return $body;
    }

    /** @return string|iterable<mixed> */
    private static function response(Response $response): string|iterable
    {
        Sessions::addHeaders();
        Headers::$status = $response->status;
        foreach ($response->headers as $name => $values) {
            $replace = true;
            foreach ((array) $values as $value) {
                // The status is given again: a Location header alone would change it.
                Headers::add("$name: $value", $replace, $response->status);
                $replace = false;
            }
        }
        foreach ($response->cookies as $cookie) {
            Headers::put('set-cookie', "Set-Cookie: $cookie\n", false);
        }
        return $response->body;
    }
}
