"""What every part uses: errors, files, reading JSON, shapes, compilation."""
