<?php
return function (): ?string {
    $bytes = (int) ($_GET['bytes'] ?? 1 << 20);
    if (!isset($_GET['printed'])) {
        return str_repeat('x', $bytes);
    }
    for ($left = $bytes; $left > 0; $left -= 1024) {
        echo str_repeat('x', min($left, 1024));
    }
    return null;
};
