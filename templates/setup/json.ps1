{% autoescape None %}& {
{% include "common.ps1" %}
{% include "json_edit.ps1" %}
$undo = {{ encoded_undo }}
Write-PoolText (Join-Path $State 'undo.ps1') ([System.Text.Encoding]::UTF8.GetString([System.Convert]::FromBase64String($undo)))
Save-PoolOriginal $File
Edit-PoolJson {{ ps(edit) }}
{% if dotenv_ps %}Save-PoolOriginal $Dotenv
$out = New-Object System.Collections.Generic.List[string]
foreach ($line in (Remove-PoolLines (Read-PoolLines $Dotenv))) {
    $name = ($line -replace '^\s*(export\s+)?', '') -replace '\s*=.*$', ''
    if ($Names -ccontains $name) { $out.Add('# pool-server kept: ' + $line) } else { $out.Add($line) }
}
$out.Add('# pool-server: begin')
{% for name, value in dotenv.items() %}{% if value is not None %}$out.Add({{ ps(name + "=" + value) }})
{% end %}{% end %}$out.Add('# pool-server: end')
Write-PoolLines $Dotenv $out.ToArray()
{% end %}Write-Host {{ ps(label + " now goes through " + pool + ". Try it:  " + then) }}
{% for line in hints %}Write-Host {{ ps(line) }}
{% end %}Write-Host "What was there before is kept in $State; take everything back with:  powershell -ExecutionPolicy Bypass -File `"$State\undo.ps1`""
Show-PoolConflicts @({{ ", ".join(ps(name) for name in exported) }})
}
