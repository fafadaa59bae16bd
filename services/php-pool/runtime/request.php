<?php

declare(strict_types=1);

namespace Troupe;

use Troupe\Runtime\Input;

/** The request that a function answers: what the superglobals hold, in one object, as it was when the call began. */
final class Request
{
    /**
     * Open to tests of functions, which pass what they like.
     *
     * @param array<string, mixed> $server as $_SERVER
     * @param array<string|int, mixed> $query as $_GET
     * @param array<string|int, mixed> $form as $_POST
     * @param array<string|int, mixed> $cookies as $_COOKIE
     * @param array<string|int, mixed> $files as $_FILES
     * @param ?string $body null: what php://input holds
     */
    public function __construct(
        private readonly array $server,
        private readonly array $query = [],
        private readonly array $form = [],
        private readonly array $cookies = [],
        private readonly array $files = [],
        private ?string $body = null,
    ) {
    }

    public function method(): string
    {
        return $this->server['REQUEST_METHOD'] ?? 'GET';
    }

    /** The path as the client sent it, without the query. */
    public function path(): string
    {
        return explode('?', $this->server['REQUEST_URI'] ?? '/', 2)[0];
    }

    /** Path and query as the client sent them. */
    public function uri(): string
    {
        return $this->server['REQUEST_URI'] ?? '/';
    }

    public function isSecure(): bool
    {
        return ($this->server['HTTPS'] ?? '') === 'on';
    }

    /** The client's address. */
    public function ip(): string
    {
        return $this->server['REMOTE_ADDR'] ?? '';
    }

    /** The request's id, which the reply carries as X-Request-Id and the log with every line. */
    public function id(): string
    {
        return $this->server['REQUEST_ID'] ?? '';
    }

    /** One variable of $_SERVER. */
    public function server(string $name, mixed $default = null): mixed
    {
        return $this->server[$name] ?? $default;
    }

    /** One query parameter; all of them without a name. */
    public function query(?string $name = null, mixed $default = null): mixed
    {
        return $name === null ? $this->query : $this->query[$name] ?? $default;
    }

    /** One field of a submitted form; all of them without a name. */
    public function form(?string $name = null, mixed $default = null): mixed
    {
        return $name === null ? $this->form : $this->form[$name] ?? $default;
    }

    /** One cookie. */
    public function cookie(string $name, mixed $default = null): mixed
    {
        return $this->cookies[$name] ?? $default;
    }

    /** One uploaded file, or several of one name, in the shape of $_FILES; null when there is none. */
    public function file(string $name): ?array
    {
        $file = $this->files[$name] ?? null;
        return $file === null || $file['error'] === UPLOAD_ERR_NO_FILE ? null : $file;
    }

    /** One header, by its usual name in any case. */
    public function header(string $name, ?string $default = null): ?string
    {
        $key = strtoupper(strtr($name, '-', '_'));
        if ($key === 'CONTENT_TYPE' || $key === 'CONTENT_LENGTH') {
            return ($this->server[$key] ?? '') === '' ? $default : $this->server[$key];
        }
        return $this->server["HTTP_$key"] ?? $default;
    }

    /** The whole body. */
    public function body(): string
    {
        return $this->body ??= Input::contents();
    }

    /**
     * The body, as JSON: objects become arrays.
     *
     * @throws \JsonException when it is no JSON
     */
    public function json(): mixed
    {
        return json_decode($this->body(), true, 512, JSON_THROW_ON_ERROR);
    }
}
