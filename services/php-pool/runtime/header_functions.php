<?php

declare(strict_types=1);

use Troupe\Runtime\Callback;
use Troupe\Runtime\Headers;
use Troupe\Runtime\Output;
use Troupe\Runtime\Sessions;

/*
 * The header() family, in the place of the built-in functions, which do nothing on the command line. Every caller in PHP code
 * finds these: from a namespace, by `\header`, through call_user_func() or as a first-class callable. Like built-in ones they take
 * null for any scalar.
 */

function header(?string $header, ?bool $replace = true, ?int $response_code = 0): void
{
    Headers::add((string) $header, (bool) $replace, (int) $response_code);
}

function header_remove(?string $name = null): void
{
    if (!Headers::writable()) {
        return;
    }
    Sessions::addHeaders();
    if ($name === null) {
        Headers::$lines = [];
    } else {
        Headers::remove(strtolower($name));
    }
}

/** @return list<string> */
function headers_list(): array
{
    Sessions::addHeaders();
    return array_map(rtrim(...), array_values(Headers::$lines));
}

function headers_sent(mixed &$filename = null, mixed &$line = null): bool
{
    $filename = '';
    $line = 0;
    return Output::$streaming;
}

function header_register_callback(mixed $callback): bool
{
    Headers::$callback = Callback::take(__FUNCTION__, $callback);
    return true;
}

function http_response_code(?int $response_code = 0): int|bool
{
    $before = Headers::$status;
    if ((int) $response_code !== 0 && Headers::writable()) {
        Headers::$status = $response_code;
    }
    return $before;
}
