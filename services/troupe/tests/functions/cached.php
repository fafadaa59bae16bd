<?php
use Troupe\Cache;

// An answer that tells one run from another, kept by its attribute.
return #[Cache(ttl: 600, groups: ['stack', 'draws'], vary: ['Accept-Language'])] fn (): array => [
    'draw' => bin2hex(random_bytes(8)),
    'language' => $_SERVER['HTTP_ACCEPT_LANGUAGE'] ?? null,
];
