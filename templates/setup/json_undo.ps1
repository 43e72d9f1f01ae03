{% autoescape None %}& {
{% include "common.ps1" %}
$State = '__POOL_State__'
$File = '__POOL_File__'
{% if dotenv_ps %}$Dotenv = '__POOL_Dotenv__'
{% end %}{% include "json_edit.ps1" %}
if (-not (Test-Path -LiteralPath $Journal)) { throw "pool-server: nothing to undo here: the pool has set nothing up in $File" }
$before = Join-Path $State ((Split-Path -Leaf $File) + '.before')
if ((Test-Path -LiteralPath $File) -or -not (Test-Path -LiteralPath $before)) { Edit-PoolJson '"undo"' }
else { Restore-PoolOriginal $File $before }
{% if dotenv_ps %}if (Test-Path -LiteralPath $Dotenv) {
    $lines = Remove-PoolLines (Read-PoolLines $Dotenv)
    $absent = Join-Path $State ((Split-Path -Leaf $Dotenv) + '.absent')
    if ($lines.Count -eq 0 -and (Test-Path -LiteralPath $absent)) { Remove-Item -LiteralPath $Dotenv } else { Write-PoolLines $Dotenv $lines }
}
{% end %}Remove-Item -LiteralPath $State -Recurse -Force
Write-Host {{ ps(label + " is as it was before the pool.") }}
{% if key_ends %}Write-Host {{ ps(key_ends) }}
{% end %}}
