// Checks KQL files with Microsoft's own parser, names and types included: node check.js <@kusto/language-service-next> <folder>.
// Each command begins with a dot at the start of a line. Prints what is wrong; a last line says how much was checked.
'use strict';
const fs = require('fs');
const path = require('path');

const [library, folder] = process.argv.slice(2);
require(path.join(library, 'bridge.js'));
require(path.join(library, 'Kusto.Language.Bridge.js'));
const { GlobalState, KustoCode, Symbols } = globalThis.Kusto.Language;

const commands = [];
for (const file of fs.readdirSync(folder).filter((f) => f.endsWith('.kql')).sort()) {
  fs.readFileSync(path.join(folder, file), 'utf8').split('\n').forEach((line, i) => {
    if (line.startsWith('//')) return;
    if (line.startsWith('.')) commands.push({ where: `${file}:${i + 1}`, text: line });
    else if (commands.length) commands[commands.length - 1].text += '\n' + line;
  });
}

const list = (l) => Array.from({ length: l.Count }, (_, i) => l.getItem(i));
const columns = (table) => '(' + list(table.Columns).map((c) => `['${c.Name}']: ${c.Type.Name}`).join(', ') + ')';
const members = [];
const globals = () => GlobalState.Default.WithDatabase(new Symbols.DatabaseSymbol.ctor('analytics', members));

let faults = 0;
const fault = (where, text) => { faults++; console.log(`${where}: ${text}`); };
const analyse = (where, text) => {
  const code = KustoCode.ParseAndAnalyze(text, globals());
  for (const d of list(code.GetDiagnostics())) fault(where, `${d.Code} ${d.Message} (at "${text.substr(d.Start, 30)}")`);
  return code.ResultType;
};

// What a command makes is known to those that follow, as it is on a cluster.
let policies = 0;
for (const { where, text } of commands) {
  let m;
  if ((m = text.match(/^\.create-merge table (\w+) (\(.*\))/))) {
    members.push(Symbols.TableSymbol.From(m[2]).WithName(m[1]));
  } else if ((m = text.match(/materialized-view with \(.*\) (\w+) on table \w+ \{([\s\S]*)\}/))) {
    const shape = columns(analyse(where + ' ' + m[1], m[2]));
    members.push(new Symbols.MaterializedViewSymbol.$ctor3(m[1], shape, m[2], null));
  } else if ((m = text.match(/^\.create-or-alter function with \(.*\) (\w+)(\([^)]*\)) \{([\s\S]*)\}/))) {
    const declared = m[2] === '()' ? '' : `declare query_parameters${m[2]};`;
    const result = analyse(where + ' ' + m[1], declared + m[3]);
    members.push(new Symbols.FunctionSymbol.$ctor16(m[1], m[2], `{${m[3]}}`, null));
    members[members.length - 1].result = result;
  } else if ((m = text.match(/^\.alter table (\w+) policy update @'(.*)'/))) {
    for (const policy of JSON.parse(m[2])) {
      policies++;
      const target = members.find((s) => s.Name === m[1]);
      const made = members.find((s) => `${s.Name}()` === policy.Query);
      if (!members.some((s) => s.Name === policy.Source)) fault(where, `there is no table ${policy.Source}`);
      if (!made || columns(made.result) !== columns(target)) fault(where, `${policy.Query} does not make the rows of ${m[1]}`);
    }
  }
  analyse(where, text);
}
console.log(`${commands.length} commands, ${policies} update policies, ${faults} faults`);
process.exit(faults ? 1 : 0);
