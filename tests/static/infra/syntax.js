// Reads every Bicep file with tree-sitter's grammar, and every query of alerts and workbook with Microsoft's KQL parser:
// node syntax.js <node_modules> <infra/bicep>. Prints what is wrong with file and line; a last line says how much was read. The
// grammar knows the language's form, not its meaning: infra_test.go looks at that.
'use strict';
const fs = require('fs');
const path = require('path');

const [modules, folder] = process.argv.slice(2);
const installed = require('module').createRequire(path.join(path.resolve(modules), 'here.js'));
const { Parser, Language } = installed('web-tree-sitter');
installed('@kusto/language-service-next/bridge.js');
installed('@kusto/language-service-next/Kusto.Language.Bridge.js');
const { GlobalState, KustoCode, Symbols } = globalThis.Kusto.Language;

let faults = 0;
const fault = (file, line, text) => { faults++; console.log(`${path.relative(process.cwd(), file)}:${line}: ${text}`); };

// files below a folder, by the end of their names.
const files = (ending) => fs.readdirSync(folder, { recursive: true }).filter((f) => f.endsWith(ending)).sort().map((f) => path.join(folder, f));

// The columns that queries may use, as Azure Monitor's reference lists them.
const tables = [
  'ContainerAppConsoleLogs: (TimeGenerated: datetime, ContainerAppName: string, ContainerName: string, ContainerImage: string, ContainerGroupName: string, EnvironmentName: string, RevisionName: string, Location: string, Stream: string, Log: string)',
  'ContainerAppSystemLogs: (TimeGenerated: datetime, ContainerAppName: string, EnvironmentName: string, RevisionName: string, ReplicaName: string, Location: string, Reason: string, Level: string, Log: string, Count: long)',
].map((t) => { const [name, shape] = t.split(/: (.*)/s); return Symbols.TableSymbol.From(shape).WithName(name); });
const globals = GlobalState.Default.WithDatabase(new Symbols.DatabaseSymbol.ctor('logs', tables));

let queries = 0;
const query = (file, line, text) => {
  queries++;
  const diagnostics = KustoCode.ParseAndAnalyze(text, globals).GetDiagnostics();
  for (let i = 0; i < diagnostics.Count; i++) {
    const d = diagnostics.getItem(i);
    fault(file, line + text.slice(0, d.Start).split('\n').length - 1, `${d.Code} ${d.Message}`);
  }
};

(async () => {
  await Parser.init();
  const parser = new Parser();
  parser.setLanguage(await Language.load(path.join(modules, 'tree-sitter-bicep/tree-sitter-bicep.wasm')));
  const templates = files('.bicep');
  for (const file of templates) {
    const walk = (node) => {
      if (node.isError || node.isMissing) {
        fault(file, node.startPosition.row + 1, node.isMissing ? `${node.type} is missing` : `not Bicep: ${node.text.split('\n')[0].slice(0, 60)}`);
      } else {
        node.children.forEach(walk);
      }
    };
    walk(parser.parse(fs.readFileSync(file, 'utf8')).rootNode);
  }
  for (const file of files('.kql')) query(file, 1, fs.readFileSync(file, 'utf8'));
  for (const file of files('workbook.json')) {
    const lines = fs.readFileSync(file, 'utf8').split('\n');
    for (const item of JSON.parse(lines.join('\n')).items) {
      if (item.type === 3) query(file, lines.findIndex((l) => l.includes(JSON.stringify(item.content.query))) + 1, item.content.query);
    }
  }
  for (const file of files('.json')) JSON.parse(fs.readFileSync(file, 'utf8'));
  console.log(`${templates.length} Bicep files, ${queries} queries, ${faults} faults`);
  process.exit(faults || !templates.length || !queries ? 1 : 0);
})();
