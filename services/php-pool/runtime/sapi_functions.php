<?php

declare(strict_types=1);

use Troupe\Runtime\Superglobals;

/* Functions that php-fpm has and the command line lacks, or has without anything in them. */

/** @return array<string, string> the request's headers, by their usual spelling */
function getallheaders(): array
{
    $headers = [];
    foreach ($_SERVER as $name => $value) {
        $name = (string) $name;
        if (str_starts_with($name, 'HTTP_')) {
            $name = substr($name, 5);
        } elseif (($name !== 'CONTENT_TYPE' && $name !== 'CONTENT_LENGTH') || $value === '') {
            continue;
        }
        $headers[str_replace(' ', '-', ucwords(strtolower(strtr($name, '_', ' '))))] = (string) $value;
    }
    return $headers;
}

/** @return array<string, string> */
function apache_request_headers(): array
{
    return getallheaders();
}

/** @internal */
function troupe_input(string $function, string $parameter, ?int $type): array
{
    return Superglobals::input((int) $type) ?? throw new ValueError("$function(): Argument #1 (\$$parameter) must be an INPUT_* constant");
}

function filter_has_var(?int $input_type, ?string $var_name): bool
{
    return array_key_exists((string) $var_name, troupe_input(__FUNCTION__, 'input_type', $input_type));
}

function filter_input(?int $type, ?string $var_name, ?int $filter = FILTER_DEFAULT, array|int|null $options = 0): mixed
{
    [$var_name, $filter, $options] = [(string) $var_name, (int) $filter, $options ?? 0];
    $input = troupe_input(__FUNCTION__, 'type', $type);
    if (array_key_exists($var_name, $input)) {
        return filter_var($input[$var_name], $filter, $options);
    }
    $flags = is_array($options) ? (int) ($options['flags'] ?? 0) : $options;
    if (is_array($options) && isset($options['options']['default'])) {
        return $options['options']['default'];
    }
    // With this flag, PHP swaps what "absent" and "invalid" give.
    return ($flags & FILTER_NULL_ON_FAILURE) !== 0 ? false : null;
}

function filter_input_array(?int $type, array|int|null $options = FILTER_DEFAULT, ?bool $add_empty = true): array|false|null
{
    $input = troupe_input(__FUNCTION__, 'type', $type);
    return $input === [] ? null : filter_var_array($input, $options ?? 0, (bool) $add_empty);
}
