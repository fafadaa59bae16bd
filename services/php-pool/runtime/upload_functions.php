<?php

declare(strict_types=1);

use Troupe\Runtime\Uploads;

function is_uploaded_file(?string $filename): bool
{
    return Uploads::isUploaded((string) $filename);
}

function move_uploaded_file(?string $from, ?string $to): bool
{
    return Uploads::move((string) $from, (string) $to);
}
