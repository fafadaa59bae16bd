<?php

declare(strict_types=1);

namespace Troupe;

use Troupe\Runtime\Cookies;
use Troupe\Runtime\Reply;

/** A reply with a status and headers of its own. Each `with` returns a changed copy. */
final class Response
{
    /** @var list<string> */
    public readonly array $cookies;

    /**
     * @param string|iterable<mixed> $body what is iterable is streamed, each piece at once
     * @param array<string, string|list<string>> $headers by name; several of one name as a list
     */
    public function __construct(
        public readonly string|iterable $body = '',
        public readonly int $status = 200,
        public readonly array $headers = [],
        array $cookies = [],
    ) {
        if ($status < 200 || $status > 599) {
            throw new \ValueError("the status of a response is 200 to 599, not $status");
        }
        $this->cookies = $cookies;
    }

    /** @throws \JsonException when the value cannot be encoded */
    public static function json(mixed $value, int $status = 200, array $headers = []): self
    {
        return new self(json_encode($value, Reply::JSON), $status, $headers + ['Content-Type' => 'application/json']);
    }

    public static function text(string $text, int $status = 200, array $headers = []): self
    {
        return new self($text, $status, $headers + ['Content-Type' => 'text/plain; charset=UTF-8']);
    }

    public static function html(string $html, int $status = 200, array $headers = []): self
    {
        return new self($html, $status, $headers + ['Content-Type' => 'text/html; charset=UTF-8']);
    }

    public static function redirect(string $location, int $status = 302): self
    {
        return new self('', $status, ['Location' => $location]);
    }

    public static function empty(int $status = 204): self
    {
        return new self('', $status);
    }

    public function withStatus(int $status): self
    {
        return new self($this->body, $status, $this->headers, $this->cookies);
    }

    /** @param string|list<string> $value */
    public function withHeader(string $name, string|array $value): self
    {
        return new self($this->body, $this->status, array_replace($this->headers, [$name => $value]), $this->cookies);
    }

    /** @param array<string, mixed> $options as setcookie() takes them: expires, path, domain, secure, httponly, samesite */
    public function withCookie(string $name, string $value, array $options = []): self
    {
        return new self($this->body, $this->status, $this->headers, [...$this->cookies, Cookies::line($name, $value, $options)]);
    }
}
