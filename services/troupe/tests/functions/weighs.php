<?php
// Takes its time, and says whether it was sent as many bytes as the caller says.
return function (): array {
    usleep(1000 * (int) ($_GET['ms'] ?? 0));
    $bytes = strlen(file_get_contents('php://input'));
    http_response_code($bytes === (int) ($_GET['bytes'] ?? 0) ? 200 : 422);
    return ['bytes' => $bytes];
};
