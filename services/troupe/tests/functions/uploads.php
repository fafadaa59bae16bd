<?php
// One file, and a field beside it.
return fn (): array => [
    'note' => $_POST['note'] ?? null,
    'file' => array_intersect_key($_FILES['f'], ['error' => 0, 'size' => 0]),
];
