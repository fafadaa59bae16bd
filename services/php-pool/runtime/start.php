<?php require $argv[1];
