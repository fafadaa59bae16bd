<?php
return function (): void {
    http_response_code(403);
    header('X-Before: exit');
    echo 'x';
    exit;
};
