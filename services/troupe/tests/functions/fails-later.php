<?php
// Answers until a file is there.
return function (): array {
    if (file_exists($_GET['file'])) {
        throw new RuntimeException('the file is there');
    }
    return ['draw' => bin2hex(random_bytes(8))];
};
