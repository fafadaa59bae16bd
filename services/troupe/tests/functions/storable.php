<?php
// An answer that tells one run from another, with the headers that the query asks for.
return function (): array {
    usleep(1000 * (int) ($_GET['ms'] ?? 0));
    if (isset($_GET['etag']) && ($_SERVER['HTTP_IF_NONE_MATCH'] ?? '') === '"' . $_GET['etag'] . '"') {
        http_response_code(304);
    }
    if (isset($_GET['etag'])) {
        header('ETag: "' . $_GET['etag'] . '"');
    }
    if (isset($_GET['cc'])) {
        header('Cache-Control: ' . $_GET['cc']);
    }
    if (isset($_GET['cookie'])) {
        setcookie('a', $_GET['cookie']);
    }
    if (isset($_GET['fail'])) {
        throw new RuntimeException('as asked');
    }
    return ['draw' => bin2hex(random_bytes(8))];
};
